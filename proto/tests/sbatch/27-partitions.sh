#!/bin/bash
#SBATCH -p short,long
#SBATCH -N 1-3
./work
