#: sbatch -n 2 -t 5 --wrap "make -j2 all"
