#!/bin/sh
#: sbatch --parsable --job-name=3f1c --output=.slurm/%j.log --cpus-per-task=4 --mem=8000 --time=120 --comment=rule_map 38-snakemake-like.sh
# properties = {"rule": "map", "jobid": 12}
cd /data/project && snakemake --snakefile Snakefile results/12.bam
