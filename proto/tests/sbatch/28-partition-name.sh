#!/bin/bash
#SBATCH --partition=GPU_long
./work
