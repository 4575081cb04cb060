"""What every wing uses: files, logs, forks, processes with bounds, the end of Python."""
