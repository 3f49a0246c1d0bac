# emul: completion for bash
_emul() {
    local line="${COMP_LINE:0:COMP_POINT}" current candidate
    local -a typed
    read -ra typed <<< "$line"
    [[ "$line" == *" " ]] && typed+=("")
    current="${typed[${#typed[@]}-1]}"
    COMPREPLY=()
    while IFS= read -r candidate; do
        # bash takes what follows "=" for a word of its own
        [[ "$current" == *=* && "$COMP_WORDBREAKS" == *=* ]] && candidate="${candidate#"${current%"${current##*=}"}"}"
        COMPREPLY+=("$candidate")
    done < <("${typed[0]}" completion candidates "${typed[@]:1}" 2>/dev/null)
    [[ "${#COMPREPLY[@]}" -eq 1 && "${COMPREPLY[0]}" == *[=./[,] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _emul emul
