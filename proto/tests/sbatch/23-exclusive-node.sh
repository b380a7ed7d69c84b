#!/bin/bash
#SBATCH --exclusive
#SBATCH --constraint=avx512
#SBATCH --nodelist=n[01-04]
#SBATCH --mem=0
#SBATCH --hint=nomultithread
#SBATCH --distribution=block:cyclic
./benchmark
