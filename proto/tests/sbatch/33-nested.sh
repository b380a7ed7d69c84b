#!/bin/bash
#SBATCH -J resubmit
#SBATCH -t 1:00:00
./step
if [ ! -e finished ]; then sbatch "$0"; fi
