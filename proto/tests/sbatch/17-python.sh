#!/usr/bin/env python3
#SBATCH --job-name=pyjob
#SBATCH --time=0-00:10
#SBATCH --mem=2GB
"""An interpreter of its own; the quotes end the directives."""
#SBATCH --mem=99G
import os
print(os.environ["SLURM_JOB_ID"])
