#!/bin/bash
#: sbatch --parsable 12-chain-first.sh raw.csv
#SBATCH -J prepare
#SBATCH -t 20
./prepare "$1"
