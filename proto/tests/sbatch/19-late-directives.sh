#!/bin/bash
#SBATCH -J early

set -euo pipefail
#SBATCH -t 10
#SBATCH --mem=4G
./work
