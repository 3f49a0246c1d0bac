#compdef emul
_emul() {
    local -a found
    found=("${(@f)$(${words[1]} completion candidates "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -Q -S '' -- ${(M)found:#*[=./]}
    compadd -Q -- ${found:#*[=./]}
}
compdef _emul emul
