#!/bin/bash
#: sbatch --dependency=afterok:11:lab-12,afterany:9 13-chain-second.sh
#SBATCH -J reduce
#SBATCH -d afterok:1
./reduce
