#!/bin/bash
#SBATCH -b 2026-01-31
./january
