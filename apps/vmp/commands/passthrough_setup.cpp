// vmp passthrough setup
#include "apps/vmp/commands/passthrough_setup.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/host_setup.hpp>

#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  HostSetupOptions setup;
  std::string root = "/", state, memlock, boot_loader;
  bool apply = false, undo = false, json = false, dry_run = false, translate_host = false;
};

nlohmann::ordered_json plan_json(const HostSetupPlan& plan, bool done) {
  nlohmann::ordered_json json{
      {"boot_loader", to_string(plan.boot_loader)}, {"parameters", plan.parameters}, {"done", done}};
  json["files"] = nlohmann::ordered_json::array();
  for (const FileChange& change : plan.files)
    json["files"].push_back({{"file", change.file.string()}, {"why", change.why}, {"diff", unified_diff(change)}});
  json["commands"] = plan.commands;
  json["notes"] = plan.notes;
  return json;
}

void print_diff(const std::string& diff) {
  if (!colours_wanted()) {
    fmt::print("{}", diff);
    return;
  }
  std::size_t at = 0;
  while (at < diff.size()) {
    const std::size_t end = diff.find('\n', at);
    const std::string line = diff.substr(at, end - at);
    const char* colour = line.starts_with("+") ? "32" : line.starts_with("-") ? "31" : "0";
    fmt::print("\033[{}m{}\033[0m\n", colour, line);
    at = end + 1;
  }
}

void print_plan(const HostSetupPlan& plan, bool undo) {
  for (const FileChange& change : plan.files) {
    fmt::print("{}\n", bold((undo ? "take back: " : "") + change.why));
    print_diff(unified_diff(change));
  }
  if (!plan.commands.empty()) fmt::print("{}\n", bold("then run"));
  for (const auto& command : plan.commands) fmt::print("  {}\n", fmt::join(command, " "));
  for (const std::string& note : plan.notes) fmt::print("note: {}\n", note);
}

int setup(const Options& options) {
  HostSetupOptions how = options.setup;
  how.root = options.root;
  for (const BootLoader loader : kBootLoaders)
    if (options.boot_loader == to_string(loader)) how.boot_loader = loader;
  how.state = options.state.empty() ? how.root / "var/lib/vm-platform/setup" : std::filesystem::path(options.state);
  how.host_dma_untranslated = !options.translate_host;
  if (!options.memlock.empty()) {
    const auto bytes = parse_size(options.memlock);
    if (!bytes) return report(bytes.error());
    how.memlock_kib = *bytes / kKiB;
  }
  const bool elsewhere = how.root != "/";  // its commands are left to whoever enters it
  HostSetup host(how);
  const auto plan = options.undo ? host.undo_plan() : host.plan();
  if (!plan) return report(plan.error());
  const bool change = (options.apply || options.undo) && !options.dry_run;
  if (!options.json) print_plan(*plan, options.undo);
  if (change) {
    const auto done = options.undo ? host.undo() : host.apply(*plan);
    if (!done) return report(done.error());
  }
  if (options.json) {
    fmt::print("{}\n", plan_json(*plan, change).dump(2));
  } else if (plan->files.empty() && plan->commands.empty()) {
    fmt::print("{}\n", options.undo ? "Nothing was set up from here." : "Nothing to do: all is in place.");
  } else if (!change) {
    fmt::print("Nothing was changed. To do it: vmp passthrough setup {}\n", options.undo ? "--undo" : "--apply");
  } else if (elsewhere && !plan->commands.empty()) {
    fmt::print("The commands were not run: the files are below {0}. Inside it: vmp passthrough setup {1}\n",
               options.root, options.undo ? "--undo" : "--apply");
  }
  return kDone;
}

}  // namespace

void add_passthrough_setup(CLI::App& passthrough, Action& action) {
  auto options = std::make_shared<Options>();
  auto* command = passthrough.add_subcommand("setup", "Show, make or take back what this host needs once");
  command->add_flag("--apply", options->apply, "Make the changes; without it they are only shown");
  auto* undo = command->add_flag("--undo", options->undo, "Take back what --apply made");
  undo->excludes("--apply");
  command->add_flag("--dry-run", options->dry_run, "Only show, also with --apply or --undo");
  // Not CLI::CheckedTransformer: it prints the numbers of the enumeration, as characters, into the help.
  std::vector<std::string> loaders;
  for (const BootLoader loader : kBootLoaders) loaders.emplace_back(to_string(loader));
  command->add_option("--boot-loader", options->boot_loader, "What starts this host; found out where not given")
      ->check(CLI::IsMember(loaders));
  command->add_option("--group", options->setup.group, "Whose members may use taken devices; kvm where not given");
  command->add_option("--memlock", options->memlock,
                      "Memory that they may pin, such as 64G; this host's RAM where not given");
  command->add_flag("--translate-host-dma", options->translate_host,
                    "Keep devices of the host apart from its memory too (without it iommu=pt spares them that)");
  command->add_flag("--allow-unsafe-interrupts", options->setup.unsafe_interrupts,
                    "For hosts without interrupt remapping: a guest can then raise any interrupt");
  command->add_flag("--sriov-of-taken", options->setup.sriov_of_taken,
                    "Let virtual functions be made of a physical function that is taken");
  command->add_flag("--json", options->json, "Print one JSON document");
  command->add_option("--root", options->root, "Another root than /; its commands are not run");
  command->add_option("--state", options->state,
                      "Where it is kept what was changed; var/lib/vm-platform/setup below the root where not given");
  command->footer(
      "Kernel parameters go through the boot loader's own files, everything else into files of its own below /etc.\n"
      "Files that were edited since are left alone (exit status 3).\n\n"
      "Examples:\n  vmp passthrough setup\n  sudo vmp passthrough setup --apply\n  sudo vmp passthrough setup --undo");
  command->callback([&action, options] { action = [options] { return setup(*options); }; });
}

}  // namespace vm_platform::vmp
