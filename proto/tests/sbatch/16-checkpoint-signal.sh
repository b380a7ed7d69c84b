#!/bin/bash
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=run.log

trap 'touch checkpoint.now' USR1
./simulate --restart &
wait
