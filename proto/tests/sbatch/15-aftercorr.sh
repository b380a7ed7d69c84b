#!/bin/bash
#SBATCH --array=1-10
#SBATCH --dependency=aftercorr:17
./second-stage
