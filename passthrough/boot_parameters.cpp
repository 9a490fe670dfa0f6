#include "passthrough/boot_parameters.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGrubFile = "/etc/default/grub.d/vm-platform.cfg";
constexpr const char* kSystemdBootFile = "/etc/kernel/cmdline";
constexpr const char* kExtlinuxFile = "/etc/u-boot-menu/conf.d/vm-platform.conf";

bool there(const fs::path& root, const char* path) {
  std::error_code ignored;
  return fs::exists(root / path, ignored);
}

/// systemd-boot, GRUB and others say who they are in an EFI variable: four bytes of attributes, then UTF-16.
std::string started_by(const fs::path& root) {
  const auto content =
      read_kernel_file(root / "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f");
  std::string name;
  if (content)
    for (std::size_t i = 4; i + 1 < content->size(); i += 2)
      if ((*content)[i + 1] == 0 && (*content)[i] != 0) name += (*content)[i];
  return name;
}

/// `line` with the parameters that it lacks; to the byte as it was where it lacks none.
std::string with_parameters(const std::string& line, std::span<const std::string> parameters) {
  std::vector<std::string_view> words = text::words(line);
  const std::size_t had = words.size();
  for (const std::string& parameter : parameters)
    if (std::ranges::find(words, parameter) == words.end()) words.push_back(parameter);
  return words.size() == had ? line : fmt::format("{}\n", fmt::join(words, " "));
}

Result<FileChange> grub_file(std::span<const std::string> parameters, const fs::path& root) {
  FileChange change{kGrubFile, std::nullopt, std::nullopt, "kernel parameters, for GRUB"};
  if (parameters.empty()) return change;
  // Debian, Ubuntu and their kin read a folder of files; Fedora's grub-mkconfig does not.
  for (const char* tool : {"usr/sbin/grub-mkconfig", "usr/sbin/grub2-mkconfig"}) {
    const auto script = read_kernel_file(root / tool);
    if (!script || script->find("default/grub.d/*.cfg") != std::string::npos) continue;
    return fail(
        VmError(ErrorCode::Unsupported, "set kernel parameters with GRUB", tool, "it does not read /etc/default/grub.d")
            .with_hint(fmt::format("run: grubby --update-kernel=ALL --args=\"{}\"", fmt::join(parameters, " "))));
  }
  change.after = fmt::format("{}GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT {}\"\n", kSetupHeader,
                             fmt::join(parameters, " "));
  return change;
}

Result<FileChange> systemd_boot_file(std::span<const std::string> parameters, const fs::path& root,
                                     const std::optional<std::string>& former) {
  FileChange change{kSystemdBootFile, std::nullopt, std::nullopt, "kernel parameters, for systemd-boot"};
  const auto line = former ? Result<std::string>(*former) : systemd_boot_line(root);
  if (!line) return fail(line.error());
  change.after = with_parameters(*line, parameters);
  return change;
}

FileChange extlinux_file(std::span<const std::string> parameters) {
  FileChange change{kExtlinuxFile, std::nullopt, std::nullopt, "kernel parameters, for U-Boot's menu"};
  if (parameters.empty()) return change;
  // What u-boot-update would take where the variable is not set (/etc/kernel/cmdline, else "ro quiet") is lost as soon
  // as it is, so it is taken here.
  change.after = fmt::format(R"({}if [ -z "${{U_BOOT_PARAMETERS}}" ] && [ -f /etc/kernel/cmdline ]; then
  U_BOOT_PARAMETERS=$(sed 's/root=[^[:space:]]*//; s/^[[:space:]]*//' /etc/kernel/cmdline)
  U_BOOT_ROOT=${{U_BOOT_ROOT:-$(sed -n 's/.*\(root=[^[:space:]]*\).*/\1/p' /etc/kernel/cmdline)}}
fi
U_BOOT_PARAMETERS="${{U_BOOT_PARAMETERS:-ro quiet}} {}"
)",
                             kSetupHeader, fmt::join(parameters, " "));
  return change;
}

}  // namespace

std::string_view to_string(BootLoader loader) noexcept {
  switch (loader) {
    case BootLoader::Grub: return "grub";
    case BootLoader::SystemdBoot: return "systemd-boot";
    case BootLoader::Extlinux: return "extlinux";
    case BootLoader::None: return "none";
  }
  return "none";
}

Result<std::optional<std::string>> read_if_there(const fs::path& root, const fs::path& file) {
  auto content = read_kernel_file(root / file.relative_path());
  if (content) return std::optional(std::move(*content));
  if (content.error().code() == ErrorCode::NotFound) return std::nullopt;
  return fail(content.error());
}

Result<BootLoader> find_boot_loader(const fs::path& root) {
  const std::string name = started_by(root);
  if (name.starts_with("systemd-boot")) return BootLoader::SystemdBoot;
  if (name.starts_with("GRUB")) return BootLoader::Grub;
  std::vector<BootLoader> found;
  if (there(root, "boot/grub/grub.cfg") || there(root, "boot/grub2/grub.cfg") || there(root, "etc/default/grub"))
    found.push_back(BootLoader::Grub);
  if (there(root, "boot/loader/loader.conf") || there(root, "efi/loader/loader.conf") ||
      there(root, "boot/efi/loader/loader.conf"))
    found.push_back(BootLoader::SystemdBoot);
  if (there(root, "boot/extlinux/extlinux.conf") && there(root, "usr/sbin/u-boot-update"))
    found.push_back(BootLoader::Extlinux);
  if (found.empty()) return BootLoader::None;
  if (found.size() == 1) return found.front();
  std::string names;
  for (const BootLoader loader : found) names += (names.empty() ? "" : " and ") + std::string(to_string(loader));
  return fail(
      VmError(ErrorCode::Unsupported, "find out the boot loader", root.string(), names + " are both set up here")
          .with_hint("say which one starts this host: --boot-loader"));
}

std::vector<std::vector<std::string>> boot_loader_commands(BootLoader loader, const fs::path& root) {
  switch (loader) {
    case BootLoader::Grub:
      if (there(root, "usr/sbin/update-grub")) return {{"update-grub"}};
      if (there(root, "boot/grub2")) return {{"grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"}};
      return {{"grub-mkconfig", "-o", "/boot/grub/grub.cfg"}};
    case BootLoader::SystemdBoot: {
      std::vector<std::vector<std::string>> commands;
      for (const std::string& version : list_directory(root / "lib/modules"))
        for (const std::string& image : {"/lib/modules/" + version + "/vmlinuz", "/boot/vmlinuz-" + version})
          if (there(root, image.c_str() + 1)) {
            commands.push_back({"kernel-install", "add", version, image});
            break;
          }
      return commands;
    }
    case BootLoader::Extlinux: return {{"u-boot-update"}};
    case BootLoader::None: break;
  }
  return {};
}

BootLoader loader_of(const fs::path& file) {
  return file == kGrubFile          ? BootLoader::Grub
         : file == kSystemdBootFile ? BootLoader::SystemdBoot
         : file == kExtlinuxFile    ? BootLoader::Extlinux
                                    : BootLoader::None;
}

Result<std::string> systemd_boot_line(const fs::path& root) {
  for (const char* source : {"etc/kernel/cmdline", "usr/lib/kernel/cmdline"}) {
    auto content = read_if_there(root, source);
    if (!content) return fail(content.error());
    if (*content) return std::move(**content);
  }
  const auto running = read_kernel_file(root / "proc/cmdline");
  if (!running)
    return fail(ErrorCode::NotFound, "set kernel parameters", kSystemdBootFile,
                "what the kernel is started with could not be found out");
  std::vector<std::string_view> words = text::words(*running);
  std::erase_if(words,
                [](std::string_view word) { return word.starts_with("BOOT_IMAGE=") || word.starts_with("initrd="); });
  return fmt::format("{}\n", fmt::join(words, " "));
}

Result<FileChange> place_parameters(BootLoader loader, std::span<const std::string> parameters, const fs::path& root,
                                    const std::optional<std::string>& former) {
  return loader == BootLoader::Grub          ? grub_file(parameters, root)
         : loader == BootLoader::SystemdBoot ? systemd_boot_file(parameters, root, former)
                                             : Result<FileChange>(extlinux_file(parameters));
}

}  // namespace vm_platform
