#!/bin/bash
#SBATCH --begin=2027-12-24T20:00
./christmas
