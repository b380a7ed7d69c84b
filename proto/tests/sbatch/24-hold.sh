#!/bin/bash
#SBATCH --hold
./later
