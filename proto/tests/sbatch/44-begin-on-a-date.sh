#!/bin/bash
#SBATCH --begin=2026-04-01T08:00:00
./quarterly
