// vmp sriov store | restore | forget
#include "apps/vmp/commands/sriov_boot.hpp"

#include <fmt/core.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/sriov_boot.hpp>

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string file, sysfs = "/sys", config = "/etc/vm-platform";
  bool json = false, dry_run = false;
  std::uint32_t wait = 0;
};

int store(const Options& options) {
  std::ifstream file(options.file, std::ios::binary);
  if (!file) return report(VmError::from_os(errno, "open", options.file));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  if (options.dry_run) {
    const auto read = parse_sriov_file(text);
    if (!read) return report(read.error());
    fmt::print("would be applied at every boot: {} physical functions\n", read->size());
    return kDone;
  }
  if (auto stored = store_sriov(text, options.sysfs, options.config); !stored) return report(stored.error());
  fmt::print("Applied at every boot by vm-platform-sriov.service: systemctl enable vm-platform-sriov\n");
  return kDone;
}

int restore(const Options& options) {
  const auto wanted = stored_sriov(std::chrono::seconds(options.wait), options.sysfs, options.config);
  if (!wanted) return report(wanted.error());
  const auto changes = options.dry_run ? diff_sriov(*wanted, options.sysfs) : converge_sriov(*wanted, options.sysfs);
  if (!changes) return report(changes.error());
  auto json = nlohmann::ordered_json::array();
  for (const SriovChange& change : *changes) {
    json.push_back(change.what);
    if (!options.json) fmt::print("{}\n", change.what);
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (wanted->empty())
    fmt::print("Nothing is stored.\n");
  return kDone;
}

int forget(const Options& options) {
  if (options.dry_run) {
    fmt::print("would be applied at boot no more\n");
    return kDone;
  }
  const auto forgotten = forget_sriov(options.config);
  return forgotten ? kDone : report(forgotten.error());
}

}  // namespace

void add_sriov_boot(CLI::App& sriov, Action& action) {
  auto options = std::make_shared<Options>();
  const auto command = [&](const char* name, const char* text, int (*run)(const Options&)) {
    auto* added = sriov.add_subcommand(name, text);
    added->add_option("--config", options->config, "Where it is kept; /etc/vm-platform where not given");
    added->add_flag("--dry-run", options->dry_run, "Only say what would be done");
    added->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
    return added;
  };
  auto* store_command = command("store", "Have a file applied at every boot", store);
  store_command->add_option("FILE", options->file, "YAML, as docs/passthrough.md shows")->required();
  store_command->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
  store_command->footer(
      "Devices are known by where they are plugged in and by serial number, so they may be renumbered.\n\n"
      "Example:\n  sudo vmp sriov store sriov.yaml && sudo systemctl enable vm-platform-sriov");
  auto* restore_command = command("restore", "Apply what is stored; what the unit runs at boot", restore);
  restore_command->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
  restore_command->add_option("--wait", options->wait,
                              "Seconds to wait for devices that are not there yet; 0 where not given");
  restore_command->add_flag("--json", options->json, "Print one JSON document");
  restore_command->footer("Example:\n  sudo vmp sriov restore --dry-run");
  command("forget", "Apply nothing at boot any more", forget)->footer("Example:\n  sudo vmp sriov forget");
}

}  // namespace vm_platform::vmp
