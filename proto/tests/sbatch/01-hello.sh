#!/bin/bash
#SBATCH --job-name=hello
#SBATCH --time=5
#SBATCH --ntasks=1
#SBATCH --mem=500M

echo "hello from $(hostname)"
