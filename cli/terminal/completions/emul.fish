# emul: completion for fish
complete -c emul -f -a '(emul completion candidates (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
