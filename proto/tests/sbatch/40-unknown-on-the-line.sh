#!/bin/bash
#: sbatch --site-budget gold 40-unknown-on-the-line.sh
./work
