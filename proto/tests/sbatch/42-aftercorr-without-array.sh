#!/bin/bash
#SBATCH -d aftercorr:17
./second-stage
