#!/bin/bash
#SBATCH --ntasks=4 --gpus-per-task=1 --cpus-per-task=6
#SBATCH --time=4:00:00
torchrun --nproc-per-node 4 train.py
