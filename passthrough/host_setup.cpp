#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <vm_platform/host_setup.hpp>

#include "passthrough/boot_parameters.hpp"
#include "passthrough/durable_file.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOperation = "write set-up journal";
constexpr int kVersion = 1;

using Content = std::optional<std::string>;  // nothing: the file is not there

struct JournalEntry {
  fs::path file;
  std::string why;
  Content before;    ///< What is gone back to: held before the first change.
  Content after;     ///< What it was given last.
  Content replaced;  ///< What it held before that: still holds it where the tool died in between.
  bool told = true;  ///< Whether what reads it was told since it last changed: set only after the commands have run.
  Content former;    ///< What systemd-boot's kernels were started with before `after`, also where there was no file.

  /// Whether what it holds is known to be from before set-up or from here.
  [[nodiscard]] bool explains(const Content& now) const { return now == after || now == before || now == replaced; }
};

/// What was changed.
struct SetupJournal {
  BootLoader boot_loader = BootLoader::None;
  std::string made_group;  ///< Empty: it was there.
  std::vector<JournalEntry> files;

  /// Files that changed, and whose readers do not know yet.
  [[nodiscard]] std::set<fs::path> untold() const {
    std::set<fs::path> found;
    for (const JournalEntry& entry : files)
      if (!entry.told) found.insert(entry.file);
    return found;
  }
};

fs::path journal_file(const HostSetupOptions& options) { return options.state / "setup.json"; }

Result<void> save(const SetupJournal& journal, const fs::path& file) {
  nlohmann::ordered_json json{{"version", kVersion},
                              {"boot_loader", to_string(journal.boot_loader)},
                              {"made_group", journal.made_group},
                              {"files", nlohmann::ordered_json::array()}};
  const auto content = [](const Content& text) {
    return text ? nlohmann::ordered_json(*text) : nlohmann::ordered_json(nullptr);
  };
  for (const JournalEntry& entry : journal.files)
    json["files"].push_back({{"file", entry.file.string()},
                             {"why", entry.why},
                             {"before", content(entry.before)},
                             {"after", content(entry.after)},
                             {"replaced", content(entry.replaced)},
                             {"told", entry.told},
                             {"former", content(entry.former)}});
  try {
    return write_durably(file, json.dump(2) + "\n", kOperation);
  } catch (const nlohmann::json::exception&) {  // JSON cannot hold it exactly, so it could not be taken back
    return fail(ErrorCode::Unsupported, kOperation, file.string(), "a file that would change is not valid UTF-8");
  }
}

/// Saves it once all commands have run.
Result<void> save_told(SetupJournal& journal, const fs::path& file) {
  for (JournalEntry& entry : journal.files) entry.told = true;
  return save(journal, file);
}

Result<SetupJournal> load(const fs::path& file) {
  SetupJournal journal;
  const auto content = read_kernel_file(file);
  if (!content) {
    if (content.error().code() == ErrorCode::NotFound) return journal;
    return fail(content.error());
  }
  const auto damaged = [&] {
    return fail(VmError(ErrorCode::Corrupt, "read set-up journal", file.string(), "not a journal of this tool")
                    .with_hint("take back by hand what it made: files named vm-platform in /etc; then remove it"));
  };
  const auto json = nlohmann::json::parse(*content, nullptr, false);
  if (!json.is_object() || json.value("version", nlohmann::json()) != kVersion || !json.contains("files") ||
      !json["files"].is_array())
    return damaged();
  for (const BootLoader loader : kBootLoaders)
    if (json.value("boot_loader", nlohmann::json()) == to_string(loader)) journal.boot_loader = loader;
  if (const auto group = json.find("made_group"); group != json.end() && group->is_string())
    journal.made_group = group->get<std::string>();
  for (const auto& entry : json["files"]) {
    if (!entry.is_object() || !entry.contains("file") || !entry["file"].is_string()) return damaged();
    const auto text_of = [&](const char* key) -> Content {
      const auto found = entry.find(key);
      return found != entry.end() && found->is_string() ? Content(found->get<std::string>()) : std::nullopt;
    };
    JournalEntry known{entry["file"].get<std::string>(),
                       text_of("why").value_or(""),
                       text_of("before"),
                       text_of("after"),
                       text_of("replaced"),
                       entry.value("told", nlohmann::json()) != false,
                       text_of("former")};
    if (!entry.contains("replaced")) known.replaced = known.before;
    if (!entry.contains("former")) known.former = known.before;
    journal.files.push_back(std::move(known));
  }
  return journal;
}

Result<void> put(const fs::path& root, const fs::path& file, const Content& content) {
  const fs::path place = root / file.relative_path();
  if (!content) return remove_durably(place, "remove " + file.string());
  struct stat status = {};
  const unsigned mode = ::stat(place.c_str(), &status) == 0 ? status.st_mode & 07777U : 0644U;
  return write_durably(place, *content, "write " + file.string(), mode);
}

std::string joined(const std::vector<std::string>& command) { return fmt::format("{}", fmt::join(command, " ")); }

Result<void> spawn(const std::vector<std::string>& command) {
  std::vector<std::string> words = command;
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (error != 0) return fail(VmError::from_os(error, "run", joined(command)));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(ErrorCode::Io, "run", joined(command),
              WIFEXITED(status) ? fmt::format("it ended with status {}", WEXITSTATUS(status)) : "it was killed");
}

/// What this host is, as far as set-up depends on it.
struct Host {
  bool amd = false, grouped = false;
  std::string command_line;
  std::uint64_t memory_kib = 0;
};

Host look(const fs::path& root) {
  Host host;
  const auto text_of = [&](const char* file) { return read_kernel_file(root / file).value_or(std::string()); };
  host.amd = text_of("proc/cpuinfo").find("AuthenticAMD") != std::string::npos;
  host.command_line = text_of("proc/cmdline");
  host.grouped = !list_directory(root / "sys/kernel/iommu_groups").empty();
  const std::string memory = text_of("proc/meminfo");
  std::string_view rest = memory;
  while (!rest.empty()) {
    const auto words = text::words(text::take(rest, '\n'));
    if (words.size() > 1 && words[0] == "MemTotal:") host.memory_kib = text::number(words[1]).value_or(0);
  }
  return host;
}

constexpr const char* kUntranslated = "iommu=pt";

std::vector<std::string> kernel_parameters(const Host& host, const HostSetupOptions& options) {
  std::vector<std::string> parameters;
  if (!host.amd) parameters.emplace_back("intel_iommu=on");  // AMD's is on wherever the firmware has it on
  if (options.host_dma_untranslated) parameters.emplace_back(kUntranslated);
  return parameters;
}

/// Whether a group of this name is in /etc/group.
bool group_there(const fs::path& root, const std::string& group) {
  const auto content = read_kernel_file(root / "etc/group");
  return content && (content->starts_with(group + ":") || content->find("\n" + group + ":") != std::string::npos);
}

/// Files whose content does not depend on what was there.
std::vector<FileChange> own_files(const Host& host, const HostSetupOptions& options) {
  std::vector<FileChange> files;
  files.push_back({"/etc/modules-load.d/vm-platform.conf", std::nullopt,
                   fmt::format("{}vfio-pci\nvfio_iommu_type1\n", kSetupHeader), "modules to load at boot"});
  std::string module_options;
  if (options.unsafe_interrupts) module_options += "options vfio_iommu_type1 allow_unsafe_interrupts=1\n";
  if (options.sriov_of_taken) module_options += "options vfio-pci enable_sriov=1\n";
  files.push_back({"/etc/modprobe.d/vm-platform.conf", std::nullopt,
                   module_options.empty() ? std::nullopt : std::optional(kSetupHeader + module_options),
                   "options of VFIO"});
  const std::uint64_t limit = options.memlock_kib.value_or(host.memory_kib);
  files.push_back({"/etc/security/limits.d/vm-platform.conf", std::nullopt,
                   fmt::format("{}@{} - memlock {}\n", kSetupHeader, options.group, limit),
                   fmt::format("members of {} may pin {} KiB of memory for devices", options.group, limit)});
  files.push_back({"/etc/udev/rules.d/70-vm-platform.rules", std::nullopt,
                   fmt::format("{0}SUBSYSTEM==\"vfio\", KERNEL!=\"vfio\", GROUP=\"{1}\", MODE=\"0660\"\n"
                               "SUBSYSTEM==\"vfio-dev\", GROUP=\"{1}\", MODE=\"0660\"\n"
                               "SUBSYSTEM==\"misc\", KERNEL==\"iommu\", GROUP=\"{1}\", MODE=\"0660\"\n",
                               kSetupHeader, options.group),
                   fmt::format("members of {} may open devices that are taken", options.group)});
  return files;
}

/// What brings changes of these files into the boot menu.
std::vector<std::vector<std::string>> boot_commands(const std::set<fs::path>& files, const fs::path& root) {
  std::vector<std::vector<std::string>> commands;
  for (const fs::path& file : files)
    for (auto& command : boot_loader_commands(loader_of(file), root)) commands.push_back(std::move(command));
  return commands;
}

bool udev_reads(const std::set<fs::path>& files) {
  return std::ranges::any_of(files, [](const fs::path& file) { return file.parent_path() == "/etc/udev/rules.d"; });
}

/// Says so where commands are planned for what an earlier run changed.
void note_untold(const std::set<fs::path>& untold, const fs::path& root, HostSetupPlan& plan) {
  if (!boot_commands(untold, root).empty() || udev_reads(untold))
    plan.notes.emplace_back("an earlier run changed files, and the commands that follow it have not all run");
}

/// What a file that is taken back holds while the commands run. Without a file kernel-install(8) takes what the running
/// kernel was given, and that can be what was added here; so the file goes after it.
Content while_told(const JournalEntry& entry) {
  return loader_of(entry.file) == BootLoader::SystemdBoot && !entry.before ? entry.former : entry.before;
}

VmError edited(const fs::path& file) {
  return VmError(ErrorCode::Status, "change", file.string(), "it was edited since this tool wrote it")
      .with_hint(
          "put your change elsewhere and remove the file, or keep it and remove its entry from the set-up journal");
}

}  // namespace

HostSetup::HostSetup(HostSetupOptions options) : options_(std::move(options)) {}

Result<HostSetupPlan> HostSetup::plan() const {
  const Host host = look(options_.root);
  const auto journal = load(journal_file(options_));
  if (!journal) return fail(journal.error());
  HostSetupPlan plan;
  plan.parameters = kernel_parameters(host, options_);
  const auto words = text::words(host.command_line);
  const auto runs_with = [&](const std::string& word) { return std::ranges::find(words, word) != words.end(); };
  const bool booted = std::ranges::all_of(plan.parameters, runs_with);
  auto loader = options_.boot_loader ? Result<BootLoader>(*options_.boot_loader) : find_boot_loader(options_.root);
  if (!loader) return fail(loader.error());
  plan.boot_loader = *loader;
  auto files = own_files(host, options_);
  const bool added_here = std::ranges::any_of(
      journal->files, [](const JournalEntry& entry) { return loader_of(entry.file) != BootLoader::None; });
  if (plan.boot_loader == BootLoader::None) {
    if (!plan.parameters.empty())
      plan.notes.push_back(fmt::format("no boot loader that is known: add these kernel parameters by hand: {}",
                                       fmt::join(plan.parameters, " ")));
  } else if (booted && !added_here) {
    if (!plan.parameters.empty()) plan.notes.emplace_back("the kernel has its parameters already, and not from here");
  } else {
    const auto known = std::ranges::find(journal->files, plan.boot_loader,
                                         [](const JournalEntry& entry) { return loader_of(entry.file); });
    auto place = place_parameters(plan.boot_loader, plan.parameters, options_.root,
                                  known == journal->files.end() ? std::nullopt : known->former);
    if (!place) return fail(place.error());
    files.insert(files.begin(), std::move(*place));
  }
  for (const JournalEntry& entry : journal->files)  // another boot loader's, that is not this host's now
    if (std::ranges::find(files, entry.file, &FileChange::file) == files.end())
      files.push_back({entry.file, std::nullopt, entry.before, entry.why});
  std::set<fs::path> untold = journal->untold();
  note_untold(untold, options_.root, plan);
  for (FileChange& change : files) {
    const auto now = read_if_there(options_.root, change.file);
    if (!now) return fail(now.error());
    change.before = *now;
    const auto known = std::ranges::find(journal->files, change.file, &JournalEntry::file);
    if (*now == change.after) continue;
    // A file that has our name but not our content, or that was ours and is no longer as we left it.
    const bool ours = known != journal->files.end() && known->explains(*now);
    const bool shared = change.file == "/etc/kernel/cmdline";
    if (*now && !ours && (known != journal->files.end() || !shared)) return fail(edited(change.file));
    untold.insert(change.file);
    plan.files.push_back(std::move(change));
  }
  plan.commands = boot_commands(untold, options_.root);
  if (!group_there(options_.root, options_.group)) plan.commands.push_back({"groupadd", "--system", options_.group});
  if (udev_reads(untold)) {  // after the group is there: the rules name it
    plan.commands.push_back({"udevadm", "control", "--reload"});
    plan.commands.push_back({"udevadm", "trigger", "--subsystem-match=vfio"});
  }
  if (!booted) plan.notes.emplace_back("reboot for the kernel parameters to count");
  if (!options_.host_dma_untranslated && runs_with(kUntranslated))
    plan.notes.push_back(
        fmt::format("the kernel runs with {}: reboot, and where it does so then too, take it out of the boot loader's "
                    "own settings",
                    kUntranslated));
  if (!host.grouped)
    plan.notes.emplace_back(host.amd ? "no IOMMU groups now: AMD-Vi (IOMMU) has to be on in the firmware setup"
                                     : "no IOMMU groups now: VT-d has to be on in the firmware setup");
  plan.notes.push_back(
      fmt::format("add people: usermod -aG {} NAME; they log in anew for the memory limit. Services need "
                  "LimitMEMLOCK= in their unit",
                  options_.group));
  return plan;
}

Result<void> HostSetup::apply(const HostSetupPlan& plan) {
  auto journal = load(journal_file(options_));
  if (!journal) return fail(journal.error());
  if (plan.files.empty() && plan.commands.empty()) return {};
  const SetupJournal former = *journal;
  if (!group_there(options_.root, options_.group)) journal->made_group = options_.group;
  journal->boot_loader = plan.boot_loader;
  for (const FileChange& change : plan.files) {
    const auto now = read_if_there(options_.root, change.file);
    if (!now) return fail(now.error());
    if (*now != change.before) return fail(edited(change.file));
    const auto known = std::ranges::find(journal->files, change.file, &JournalEntry::file);
    if (known == journal->files.end()) {
      JournalEntry entry{change.file, change.why, *now, change.after, *now, false, std::nullopt};
      if (loader_of(change.file) == BootLoader::SystemdBoot) {
        auto line = systemd_boot_line(options_.root);
        if (!line) return fail(line.error());
        entry.former = std::move(*line);
      }
      journal->files.push_back(std::move(entry));
    } else {  // what was there before the first time stays what is gone back to
      known->after = change.after;
      known->replaced = *now;
      known->told = false;
    }
  }
  step("write down what is there");
  if (auto saved = save(*journal, journal_file(options_)); !saved) return saved;
  for (auto change = plan.files.begin(); change != plan.files.end(); ++change) {
    step("write " + change->file.string());
    auto written = put(options_.root, change->file, change->after);
    if (written) continue;
    while (change != plan.files.begin()) {
      --change;
      if (auto back = put(options_.root, change->file, change->before); !back)
        return fail(VmError(written.error()).with_hint("putting things back failed too: " + back.error().message()));
    }
    auto forgotten = former.files.empty() ? remove_durably(journal_file(options_), kOperation)
                                          : save(former, journal_file(options_));
    return forgotten ? std::move(written) : std::move(forgotten);
  }
  if (!commands_run_here()) return {};
  if (auto ran = run_all(plan.commands); !ran) return ran;
  step("write down that all commands have run");
  return save_told(*journal, journal_file(options_));
}

Result<HostSetupPlan> HostSetup::undo_plan() const {
  const auto journal = load(journal_file(options_));
  if (!journal) return fail(journal.error());
  HostSetupPlan plan;
  plan.boot_loader = journal->boot_loader;
  std::set<fs::path> untold = journal->untold();
  note_untold(untold, options_.root, plan);
  for (const JournalEntry& entry : journal->files) {
    const auto now = read_if_there(options_.root, entry.file);
    if (!now) return fail(now.error());
    if (*now == entry.before) continue;  // a tool that died had not come to it
    if (!entry.explains(*now)) return fail(edited(entry.file));
    untold.insert(entry.file);
    plan.files.push_back({entry.file, *now, entry.before, entry.why});
  }
  plan.commands = boot_commands(untold, options_.root);
  if (udev_reads(untold)) plan.commands.push_back({"udevadm", "control", "--reload"});
  if (!journal->made_group.empty() && group_there(options_.root, journal->made_group))
    plan.commands.push_back({"groupdel", journal->made_group});
  return plan;
}

Result<void> HostSetup::undo() {
  const auto plan = undo_plan();
  if (!plan) return fail(plan.error());
  auto journal = load(journal_file(options_));
  if (!journal) return fail(journal.error());
  const bool run_here = commands_run_here();
  std::vector<FileChange> first, last;  // before the commands, after them
  for (JournalEntry& entry : journal->files) {
    const auto change = std::ranges::find(plan->files, entry.file, &FileChange::file);
    if (change == plan->files.end()) continue;
    entry.replaced = change->before;
    entry.after = run_here ? while_told(entry) : entry.before;
    entry.told = false;
    first.push_back({entry.file, entry.replaced, entry.after, entry.why});
    if (entry.after != entry.before) last.push_back({entry.file, entry.after, entry.before, entry.why});
  }
  if (!first.empty()) {
    step("write down that it is being taken back");
    if (auto saved = save(*journal, journal_file(options_)); !saved) return saved;
  }
  for (const JournalEntry& entry : journal->files) remove_unfinished(options_.root / entry.file.relative_path());
  const auto put_back = [&](const FileChange& change) {
    step("put back " + change.file.string());
    return put(options_.root, change.file, change.after);
  };
  for (const FileChange& change : first)
    if (auto written = put_back(change); !written) return written;
  if (!plan->commands.empty() && !run_here) return {};
  if (auto ran = run_all(plan->commands); !ran) return ran;
  if (!last.empty()) {  // that it goes is nothing to run the commands for
    step("write down that all commands have run");
    if (auto told = save_told(*journal, journal_file(options_)); !told) return told;
  }
  for (const FileChange& change : last)
    if (auto written = put_back(change); !written) return written;
  step("forget");
  return remove_durably(journal_file(options_), kOperation);
}

void HostSetup::step(const std::string& line) const {
  if (options_.on_step) options_.on_step(line);
}

bool HostSetup::commands_run_here() const { return options_.run || options_.root == "/"; }

Result<void> HostSetup::run_all(const std::vector<std::vector<std::string>>& commands) const {
  for (const auto& command : commands) {
    step("run " + joined(command));
    if (auto ran = options_.run ? options_.run(command) : spawn(command); !ran)
      return fail(
          VmError(ran.error()).with_hint("the files are as they should be; set-up run once more runs what is left"));
  }
  return {};
}

}  // namespace vm_platform
