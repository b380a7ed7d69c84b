#!/bin/sh
# Nothing is asked for: one core, no limit, slurm-%j.out.
date
