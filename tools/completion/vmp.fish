# Completion of vmp in fish. Commands, options and devices are asked of vmp itself.
function __vmp_words
    set -l command
    for word in (commandline -opc)[2..]
        string match -qr '^-|[:./=]' -- $word; and break
        set -a command $word
    end
    set -l values
    switch (commandline -opc)[-1]
        case --engine; set values auto soft
        case --console --serial2; set values stdio none pty file: fd: winsize
        case --input; set values raw canonical
        case --boot; set values auto linux pvh multiboot
        case --host-cpu; set values all no-bmi2 baseline
        case --type; set values f d l
        case --names; set values auto rock-ridge joliet enhanced plain
        case --boot-loader; set values grub systemd-boot extlinux none
    end
    if test (count $values) -gt 0
        string join \n -- $values
        return
    end
    set -l help (vmp $command --help 2>/dev/null)
    # Help's lines of options begin with them; examples in it have those of other commands.
    string replace -rf '^ +(?:-\w,)?(--[a-z0-9-]+).*$' '$1' -- $help
    set -l subcommands (string join \n -- $help | sed -n '/^Subcommands:/,$s/^  \([a-z0-9-]*\) .*/\1/p')
    if test (count $subcommands) -gt 0
        string join \n -- $subcommands
    else if contains -- "$command" 'sriov list' 'sriov set' 'sriov delete'
        vmp sriov list --json 2>/dev/null | sed -n 's/.*"\(device\|interface\)": "\([^"]\{1,\}\)".*/\2/p'
    else if contains -- "$command" 'gpu rom' 'gpu resize'
        vmp gpu list --json 2>/dev/null | sed -n 's/^    "address": "\([0-9a-f:.]*\)".*/\1/p'
    else if contains -- "$command" 'pci show' 'iommu groups' 'passthrough plan' 'passthrough take'
        vmp pci list --json 2>/dev/null | sed -n 's/.*"address": "\([0-9a-f:.]*\)".*/\1/p'
    else if test "$command" = 'passthrough release'
        vmp passthrough status --json 2>/dev/null | sed -n 's/.*"address": "\([0-9a-f:.]*\)".*/\1/p'
    end
end
# Files only where there is nothing of vmp's own to offer.
complete -c vmp -n 'string length -q -- (__vmp_words)' -f -a '(__vmp_words)'
