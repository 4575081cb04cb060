"""What every wing uses: files, logs, forks."""
