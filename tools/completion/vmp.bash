# Completion of vmp in bash:  source tools/completion/vmp.bash
# Commands and options are asked of vmp itself, so that this file does not go stale.
_vmp() {
  local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} vmp=${COMP_WORDS[0]} command=() i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${COMP_WORDS[i]} in -*) break ;; *) command+=("${COMP_WORDS[i]}") ;; esac
  done
  case $previous in
    --engine) mapfile -t COMPREPLY < <(compgen -W 'auto soft' -- "$word"); return ;;
    --console | --serial2) mapfile -t COMPREPLY < <(compgen -W 'stdio none pty file: fd: winsize' -- "$word"); return ;;
    --input) mapfile -t COMPREPLY < <(compgen -W 'raw canonical' -- "$word"); return ;;
    --boot) mapfile -t COMPREPLY < <(compgen -W 'auto linux pvh multiboot' -- "$word"); return ;;
    --names) mapfile -t COMPREPLY < <(compgen -W 'auto rock-ridge joliet enhanced plain' -- "$word"); return ;;
    -*) compopt -o default; [[ $word == -* ]] || return ;;
  esac
  local help
  help=$("$vmp" "${command[@]}" --help 2>/dev/null) || return
  if [[ $word == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(grep -oE '(^|[ ,])--[a-z0-9-]+' <<<"$help" | tr -d ' ,' | sort -u)" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "$(sed -n '/^Subcommands:/,/^$/s/^  \([a-z0-9-]*\) .*/\1/p' <<<"$help")" -- "$word")
    compopt -o default
  fi
}
complete -F _vmp vmp
