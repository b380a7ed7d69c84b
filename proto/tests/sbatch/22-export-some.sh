#!/bin/bash
#: HOME=/home/ada
#: EDITOR=vi
#: PATH=/opt/bin:/usr/bin
#: BASH_FUNC_module%%=() { :; }
#SBATCH --export='ALL,MODE="fast,loose",LEVEL=3'
./work
