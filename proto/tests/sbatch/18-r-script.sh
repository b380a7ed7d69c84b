#!/usr/bin/env Rscript
#SBATCH -J "mixed model"
#SBATCH -o 'results of %x.txt'
#SBATCH -c 4

library(lme4)
