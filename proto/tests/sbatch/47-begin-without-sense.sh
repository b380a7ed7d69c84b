#!/bin/bash
#SBATCH --begin=friday
./later
