#!/bin/bash
#SBATCH -D runs/today
#SBATCH -i config.in
#SBATCH -o %u.%N.%j.out
#SBATCH --wait
cat
