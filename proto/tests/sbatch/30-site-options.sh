#!/bin/bash
#SBATCH --site-budget gold
#SBATCH --licenses=matlab:2
#SBATCH --reservation=course
#SBATCH --gres=gpu:1,nvme:200
matlab -batch run
