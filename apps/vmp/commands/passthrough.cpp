// vmp passthrough plan | take | release | status | recover | restore; setup is in passthrough_setup.cpp
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <vm_platform/gpu.hpp>
#include <vm_platform/passthrough.hpp>

#include "apps/vmp/commands/passthrough_setup.hpp"
#include "apps/vmp/pci_json.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::vector<std::string> addresses, bars;
  std::string sysfs = "/sys", root = "/", state = "/var/lib/vm-platform/passthrough", config = "/etc/vm-platform", rom;
  bool json = false, dry_run = false, force = false, persistent = false, hide_hypervisor = false;
  int unbind_timeout = 10, wait = 0;

  [[nodiscard]] PassthroughManager manager() const {
    PassthroughOptions options;
    options.sysfs = sysfs;
    options.root = root;
    options.state = state;
    options.config = config;
    options.unbind_timeout = std::chrono::seconds(unbind_timeout);
    if (::isatty(STDERR_FILENO) == 1)
      options.on_step = [](std::string_view step) { fmt::print(stderr, "  {}\n", step); };
    return PassthroughManager(std::move(options));
  }
};

Result<std::vector<PciAddress>> addresses(const Options& options) {
  std::vector<PciAddress> parsed;
  for (const std::string& text : options.addresses) {
    const auto address = PciAddress::parse(text);
    if (!address) return fail(address.error());
    parsed.push_back(*address);
  }
  return parsed;
}

/// "1=16G" as BAR and bytes.
Result<std::pair<std::uint8_t, std::uint64_t>> bar_size(const std::string& text) {
  const auto equals = text.find('=');
  const bool digit = equals == 1 && text[0] >= '0' && text[0] <= '5';
  if (!digit)
    return fail(VmError(ErrorCode::InvalidArgument, "read --bar", text, "it is not BAR=SIZE").with_hint("--bar 1=16G"));
  const auto bytes = parse_size(text.substr(2));
  if (!bytes) return fail(bytes.error());
  return std::pair(static_cast<std::uint8_t>(text[0] - '0'), *bytes);
}

/// The ROM that a guest is to see is looked at now, and not when the guest starts.
Result<TakeOptions> take_options(const Options& options, const std::vector<PciAddress>& devices) {
  TakeOptions take;
  for (const std::string& text : options.bars) {
    const auto bar = bar_size(text);
    if (!bar) return fail(bar.error());
    take.bar_sizes.push_back(*bar);
  }
  take.guest.hide_hypervisor = options.hide_hypervisor;
  if (options.rom.empty()) return take;
  std::error_code ignored;
  take.guest.rom_file = std::filesystem::absolute(options.rom, ignored);
  for (const PciAddress& address : devices) {
    auto device = read_pci_device(address, options.sysfs);
    if (!device) return fail(device.error());
    GpuConfig gpu;
    gpu.device = std::move(*device);
    gpu.rom_file = take.guest.rom_file;
    const auto rom = guest_rom(gpu, [] { return std::vector<std::uint8_t>{}; });
    if (!rom) return fail(rom.error());
    for (const std::string& problem : rom->problems) complain(options.rom + ": " + problem);
  }
  return take;
}

void print_plan(const PassthroughPlan& plan, const PciNames& names, bool force) {
  fmt::print("{}\n", bold("Devices that move"));
  for (const PassthroughDevice& device : plan.devices) {
    fmt::print("  {}  [{}] {}{}\n", device.info.address.to_string(), to_string(device.type),
               names.describe(device.info), device.requested ? "" : dim("  (" + device.reason + ")"));
  }
  if (!plan.in_use.empty()) {
    fmt::print("{}\n", bold(force ? "In use, overridden by --force" : "In use: this stands in the way"));
    for (const DeviceUse& use : plan.in_use) fmt::print("  {}  {}\n", use.device.to_string(), use.what);
  }
  if (!plan.risks.empty()) fmt::print("{}\n", bold("Good to know"));
  for (const std::string& risk : plan.risks) fmt::print("  {}\n", risk);
  if (plan.steps.empty()) {
    fmt::print("Nothing to do: all is in place.\n");
    return;
  }
  fmt::print("{}\n", bold("Steps"));
  for (std::size_t i = 0; i < plan.steps.size(); ++i) fmt::print("  {}. {}\n", i + 1, plan.steps[i].text);
}

nlohmann::ordered_json plan_json(const PassthroughPlan& plan, const PciNames& names) {
  auto json = nlohmann::ordered_json::object();
  json["devices"] = nlohmann::ordered_json::array();
  for (const PassthroughDevice& device : plan.devices) {
    auto entry = summary_json(device.info, names);
    entry["type"] = to_string(device.type);
    entry["requested"] = device.requested;
    entry["reason"] = device.reason;
    json["devices"].push_back(std::move(entry));
  }
  json["in_use"] = nlohmann::ordered_json::array();
  for (const DeviceUse& use : plan.in_use)
    json["in_use"].push_back({{"device", use.device.to_string()}, {"use", use.what}});
  json["risks"] = plan.risks;
  json["steps"] = nlohmann::ordered_json::array();
  for (const PlanStep& step : plan.steps) json["steps"].push_back(step.text);
  return json;
}

nlohmann::ordered_json set_json(const TakenSet& set) {
  nlohmann::ordered_json json{{"state", to_string(set.state)}, {"stale", set.stale}};
  json["devices"] = nlohmann::ordered_json::array();
  for (const TakenDevice& device : set.devices)
    json["devices"].push_back({{"address", device.address.to_string()},
                               {"id", id_text(device.vendor, device.device)},
                               {"path", device.device_path},
                               {"former_driver", device.former_driver},
                               {"rom_file", device.guest.rom_file},
                               {"hide_hypervisor", device.guest.hide_hypervisor}});
  return json;
}

int plan_or_take(const Options& options, bool take) {
  const auto wanted = addresses(options);
  if (!wanted) return report(wanted.error());
  auto manager = options.manager();
  const auto how = take_options(options, *wanted);
  if (!how) return report(how.error());
  const auto plan = manager.plan(*wanted, *how);
  if (!plan) return report(plan.error());
  const auto names = PciNames::load();
  if (!take || options.dry_run) {
    if (options.json)
      fmt::print("{}\n", plan_json(*plan, names).dump(2));
    else
      print_plan(*plan, names, options.force);
    return plan->in_use.empty() || options.force ? kDone : kRefused;
  }
  for (const DeviceUse& use : plan->in_use)
    if (options.force) fmt::print(stderr, "vmp: overridden: {} {}\n", use.device.to_string(), use.what);
  const auto taken = manager.take(*plan, options.force);
  if (!taken) return report(taken.error());
  if (options.persistent) {
    if (auto kept = manager.remember(*plan); !kept) return report(kept.error());
  }
  if (options.json) {
    fmt::print("{}\n", plan_json(*plan, names).dump(2));
    return kDone;
  }
  for (const PassthroughDevice& device : plan->devices)
    fmt::print("{} is ready for a guest\n", device.info.address.to_string());
  if (options.persistent)
    fmt::print("Taken at every boot by vm-platform-passthrough.service: systemctl enable vm-platform-passthrough\n");
  return kDone;
}

/// Gives one back with those it was taken with; with --dry-run only says so. Nothing where it is merely taken at boot.
Result<std::optional<TakenSet>> release_one(PassthroughManager& manager, PciAddress address, const Options& options) {
  auto set = options.dry_run ? manager.taken_with(address) : manager.release(address, options.force);
  if (set) return std::optional(std::move(*set));
  if (set.error().detail() == PassthroughError::NotTaken)
    if (const auto kept = manager.remembers(address); kept && *kept) return std::nullopt;
  return fail(set.error());
}

int release(const Options& options) {
  const auto wanted = addresses(options);
  if (!wanted) return report(wanted.error());
  auto manager = options.manager();
  auto json = nlohmann::ordered_json::array();
  std::vector<PciAddress> done;
  const auto say = [&](const std::string& line) {
    if (!options.json) fmt::print("{}\n", line);
  };
  const auto end_at_boot = [&](PciAddress address) -> Result<void> {
    const auto known = options.dry_run ? manager.remembers(address) : manager.forget(address);
    if (!known) return fail(known.error());
    if (*known)
      say(fmt::format("{} {} taken at boot no more", address.to_string(), options.dry_run ? "would be" : "is"));
    return {};
  };
  for (const PciAddress& address : *wanted) {
    if (std::ranges::find(done, address) != done.end()) continue;  // it went back with one before
    const auto released = release_one(manager, address, options);
    if (!released) return report(released.error());
    const std::optional<TakenSet>& set = *released;
    if (!set) {
      if (auto ended = end_at_boot(address); !ended) return report(ended.error());
      continue;
    }
    json.push_back(set_json(*set));
    for (const TakenDevice& device : set->devices) {
      done.push_back(device.address);
      if (auto ended = end_at_boot(device.address); !ended) return report(ended.error());
      say(fmt::format("{} {} {}", device.address.to_string(), options.dry_run ? "would go back to" : "is back with",
                      device.former_driver.empty() ? "no driver" : device.former_driver));
    }
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  return kDone;
}

int status(const Options& options) {
  const auto sets = options.manager().status();
  if (!sets) return report(sets.error());
  auto json = nlohmann::ordered_json::array();
  Table table({"ADDRESS", "STATE", "DRIVER NOW", "FORMER DRIVER", "ID", "HELD BY"});
  for (const TakenSet& set : *sets) {
    auto entry = set_json(set);
    for (std::size_t i = 0; i < set.devices.size(); ++i) {
      const TakenDevice& device = set.devices[i];
      // By links alone: what is in the middle of being given back would have whoever reads more of it wait.
      const auto place = std::filesystem::path(options.sysfs) / "bus/pci/devices" / device.address.to_string();
      std::error_code error;
      const bool there = std::filesystem::exists(place, error);
      const auto bound = std::filesystem::read_symlink(place / "driver", error);
      std::string held;
      std::set<int> holders;  // one may have both the group and the device
      for (const NodeHolder& holder : find_holders(vfio_nodes(device.address, options.sysfs), options.root))
        if (holders.insert(holder.pid).second)
          held += (held.empty() ? "" : ", ") + fmt::format("{} (pid {})", holder.command, holder.pid);
      const std::string driver = !there ? "gone" : error ? "-" : bound.filename().string();
      entry["devices"][i]["driver"] = driver;
      entry["devices"][i]["held_by"] = held;
      table.add({device.address.to_string(), set.stale ? "undone by reboot" : std::string(to_string(set.state)), driver,
                 device.former_driver.empty() ? "-" : device.former_driver, id_text(device.vendor, device.device),
                 held.empty() ? "-" : held});
    }
    json.push_back(std::move(entry));
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (table.has_rows())
    table.print();
  else
    fmt::print("Nothing is taken.\n");
  return kDone;
}

/// What `recover` would do.
Result<std::vector<TakenSet>> left_half_done(const PassthroughManager& manager) {
  auto sets = manager.status();
  if (sets) std::erase_if(*sets, [](const TakenSet& set) { return set.state == TakenSet::State::Taken && !set.stale; });
  return sets;
}

int recover(const Options& options) {
  auto manager = options.manager();
  const auto sets = options.dry_run ? left_half_done(manager) : manager.recover();
  if (!sets) return report(sets.error());
  auto json = nlohmann::ordered_json::array();
  for (const TakenSet& set : *sets) {
    json.push_back(set_json(set));
    for (const TakenDevice& device : set.devices)
      if (!options.json)
        fmt::print("{} {} {}\n", device.address.to_string(), options.dry_run ? "would go back to" : "is back with",
                   device.former_driver.empty() ? "no driver" : device.former_driver);
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (sets->empty())
    fmt::print("Nothing was left half-done.\n");
  return kDone;
}

int list_remembered(const Options& options) {
  const auto devices = options.manager().remembered();
  if (!devices) return report(devices.error());
  auto json = nlohmann::ordered_json::array();
  for (const RememberedDevice& device : *devices) {
    json.push_back({{"address", device.identity.address.to_string()},
                    {"id", id_text(device.identity.vendor, device.identity.device)},
                    {"topology", device.identity.topology},
                    {"requested", device.requested},
                    {"former_driver", device.former_driver}});
    if (options.json) continue;
    fmt::print("{}  {} at {}{}\n", device.identity.address.to_string(),
               id_text(device.identity.vendor, device.identity.device), device.identity.topology,
               device.requested ? "" : "  (comes along)");
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (devices->empty())
    fmt::print("Nothing is taken at boot.\n");
  return kDone;
}

int restore(const Options& options) {
  if (options.dry_run) return list_remembered(options);
  auto manager = options.manager();
  const auto outcomes = manager.restore(std::chrono::seconds(options.wait));
  if (!outcomes) return report(outcomes.error());
  auto json = nlohmann::ordered_json::array();
  int status = kDone;
  for (const RestoreOutcome& outcome : *outcomes) {
    const std::string name = (outcome.address ? *outcome.address : outcome.device.identity.address).to_string();
    json.push_back(
        {{"address", name}, {"taken", !outcome.error}, {"error", outcome.error ? outcome.error->message() : ""}});
    if (outcome.error) status = std::max(status, report(*outcome.error));
    if (!outcome.error && !options.json) fmt::print("{} is ready for a guest\n", name);
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  return status;
}

}  // namespace

void add_passthrough(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* passthrough =
      app.add_subcommand("passthrough", "Take PCI devices away from the host for a guest, and give them back");
  passthrough->require_subcommand(1);
  passthrough->footer(
      "plan says what taking a device means; take does it whole or not at all; release puts everything back as it "
      "was.\n"
      "Exit status: 0 done, 1 failed (a driver that does not let go, putting back failed), 2 bad input,\n"
      "3 refused (in use, no IOMMU), 4 tried and put back.");
  const auto command = [&](const char* name, const char* text, int (*run)(const Options&)) {
    auto* added = passthrough->add_subcommand(name, text);
    added->add_flag("--json", options->json, "Print one JSON document");
    added->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
    added->add_option("--root", options->root, "Where /proc is looked up");
    added->add_option("--state", options->state,
                      "Where the journal is kept; /var/lib/vm-platform/passthrough where not given");
    added->add_option("--config", options->config,
                      "Where it is kept what is taken at every boot; /etc/vm-platform where not given");
    added->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
    return added;
  };
  const auto with_addresses = [&](CLI::App* added) {
    added->add_option("ADDRESS", options->addresses, "Such as 0000:3b:00.0 or 3b:00.0")->required();
    return added;
  };
  const auto with_changes = [&](CLI::App* added, const char* force) {
    added->add_flag("--dry-run", options->dry_run, "Only say what would be done");
    added->add_flag("--force", options->force, force);
    added
        ->add_option("--unbind-timeout", options->unbind_timeout,
                     "Seconds a driver may take to let go; 10 where not given")
        ->check(CLI::Range(1, 3600));
    return added;
  };
  with_addresses(command("plan", "Say what would move, what stands in the way, and every step", [](const Options& o) {
    return plan_or_take(o, false);
  }))->footer("Example:\n  vmp passthrough plan 3b:00.0");
  auto* take = with_changes(with_addresses(command("take", "Bind devices, and those that must come along, to vfio-pci",
                                                   [](const Options& o) { return plan_or_take(o, true); })),
                            "Take it although the host uses it; says what is overridden");
  take->add_flag("--persistent", options->persistent, "Also at every boot, wherever it is then");
  take->add_option("--rom", options->rom, "What the guest sees at its ROM BAR instead of its own; checked now");
  take->add_flag("--hide-hypervisor", options->hide_hypervisor,
                 "Do not tell the guest that it is one (NVIDIA drivers before 465.89)");
  take->add_option("--bar", options->bars, "BAR=SIZE: resize a BAR meanwhile, as in 1=16G");
  take->footer(
      "Examples:\n  vmp passthrough take --dry-run 3b:00.0\n  sudo vmp passthrough take 3b:00.0\n"
      "  sudo vmp passthrough take --persistent --rom gpu.rom 01:00.0");
  with_changes(with_addresses(command("release", "Give devices back to their former drivers", release)),
               "Ask processes that have it open to let go")
      ->footer(
          "What was taken with --persistent is taken at boot no more.\n\nExample:\n  sudo vmp passthrough release "
          "3b:00.0");
  command("status", "Show what is taken and who uses it", status)->footer("Example:\n  sudo vmp passthrough status");
  auto* recover_command = command("recover", "Put right what a tool that was killed left half-done", recover);
  recover_command->add_flag("--dry-run", options->dry_run, "Only say what would be done");
  recover_command->footer("Example:\n  sudo vmp passthrough recover");
  auto* restore_command =
      command("restore", "Take what was taken with --persistent; what the unit runs at boot", restore);
  restore_command->add_flag("--dry-run", options->dry_run, "Only say what that is");
  restore_command->add_option("--wait", options->wait,
                              "Seconds to wait for devices that are not there yet; 0 where not given");
  restore_command->footer("Example:\n  sudo vmp passthrough restore");
  add_passthrough_setup(*passthrough, action);
}

}  // namespace vm_platform::vmp
