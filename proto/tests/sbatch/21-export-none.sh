#!/bin/bash
#: HOME=/home/ada
#: EDITOR=vi
#SBATCH --export=NONE
#SBATCH -t 5
./clean-room
