#!/bin/bash
#: sbatch -b 22:15 43-begin-at-night.sh
#SBATCH --job-name=backup
#SBATCH --begin=2026-04-01T22:15
tar cf backup.tar data
