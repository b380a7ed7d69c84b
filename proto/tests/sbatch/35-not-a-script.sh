echo "no interpreter is named"
