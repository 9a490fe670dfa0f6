# Completion of vmp in bash:  source tools/completion/vmp.bash
# Commands and options are asked of vmp itself, so that this file does not go stale; so are the host's devices.
_vmp_addresses() { # VMP COMMAND...: the devices that an argument of this command can name
  local vmp=$1; shift
  case "$*" in
    'passthrough release') "$vmp" passthrough status --json 2>/dev/null | sed -n 's/.*"address": "\([0-9a-f:.]*\)".*/\1/p' ;;
    'sriov list' | 'sriov set' | 'sriov delete') "$vmp" sriov list --json 2>/dev/null | sed -n 's/.*"\(device\|interface\)": "\([^"]\+\)".*/\2/p' ;;
    'gpu rom' | 'gpu resize') "$vmp" gpu list --json 2>/dev/null | sed -n 's/^    "address": "\([0-9a-f:.]*\)".*/\1/p' ;;
    'gpu vgpu create') "$vmp" gpu vgpu list --json 2>/dev/null | sed -n 's/.*"\(parent\|type\)": "\([^"]*\)".*/\2/p' | sort -u ;;
    'gpu vgpu remove') "$vmp" gpu vgpu list --json 2>/dev/null | sed -n 's/.*"id": "\([^"]*\)".*/\1/p' ;;
    'pci show' | 'iommu groups' | 'passthrough plan' | 'passthrough take')
      "$vmp" pci list --json 2>/dev/null | sed -n 's/.*"address": "\([0-9a-f:.]*\)".*/\1/p' ;;
  esac
}

_vmp() {
  # Bash splits words at colons, and device addresses have them: the words are put together again from the line.
  local line=${COMP_LINE:0:COMP_POINT} vmp=${COMP_WORDS[0]} words command=() word previous i
  read -r -a words <<<"$line"
  [[ $line == *' ' ]] && words+=('')
  word=${words[-1]} previous=${words[-2]-}
  for ((i = 1; i < ${#words[@]} - 1; ++i)); do
    # What is no subcommand (an address, an option and its value) ends the command.
    case ${words[i]} in -* | *[:./=]*) break ;; *) command+=("${words[i]}") ;; esac
  done
  case $previous in
    --engine) mapfile -t COMPREPLY < <(compgen -W 'auto soft' -- "$word"); return ;;
    --console | --serial2) mapfile -t COMPREPLY < <(compgen -W 'stdio none pty file: fd: winsize' -- "$word"); return ;;
    --input) mapfile -t COMPREPLY < <(compgen -W 'raw canonical' -- "$word"); return ;;
    --boot) mapfile -t COMPREPLY < <(compgen -W 'auto linux pvh multiboot' -- "$word"); return ;;
    --host-cpu) mapfile -t COMPREPLY < <(compgen -W 'all no-bmi2 baseline' -- "$word"); return ;;
    --type) mapfile -t COMPREPLY < <(compgen -W 'f d l' -- "$word"); return ;;
    --names) mapfile -t COMPREPLY < <(compgen -W 'auto rock-ridge joliet enhanced plain' -- "$word"); return ;;
    --boot-loader) mapfile -t COMPREPLY < <(compgen -W 'grub systemd-boot extlinux none' -- "$word"); return ;;
    --json | --dry-run | --force | --persistent | --apply | --undo | --hide-hypervisor) ;; # no value follows
    -*) compopt -o default 2>/dev/null; [[ $word == -* ]] || return 0 ;;
  esac
  local help
  help=$("$vmp" "${command[@]}" --help 2>/dev/null) || return
  if [[ $word == -* ]]; then # help's lines of options begin with them; examples in it have those of other commands
    mapfile -t COMPREPLY < <(compgen -W "$(sed -nE 's/^ +(-[^ ]*).*/\1/p' <<<"$help" | grep -oE -e '--[a-z0-9-]+' | sort -u)" -- "$word")
    return
  fi
  local choices
  choices=$(sed -n '/^Subcommands:/,/^$/s/^  \([a-z0-9-]*\) .*/\1/p' <<<"$help")
  [ -n "$choices" ] || choices=$(_vmp_addresses "$vmp" "${command[@]}")
  mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
  if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then # bash keeps what stands before the last colon
    COMPREPLY=("${COMPREPLY[@]#"${word%:*}:"}")
  fi
  [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default 2>/dev/null
}
complete -F _vmp vmp
