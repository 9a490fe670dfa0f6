// vmp run: boots a guest in front of the user.
#include <fmt/core.h>

#include <charconv>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#include <vm_platform/runtime.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/commands/run_iso.hpp"
#include "apps/vmp/console/endpoint.hpp"
#include "apps/vmp/console/session.hpp"
#include "apps/vmp/console/terminal.hpp"
#include "apps/vmp/text.hpp"

namespace vm_platform::vmp {
namespace {

/// Exit statuses of a guest's ends (docs/exit-status.md).
constexpr int kPanic = 120, kTripleFault = 122, kResetLoop = 124, kSignalBase = 128;

/// A value as `say` shows it: text may be from outside.
template <typename Value>
auto shown(const Value& value) {
  if constexpr (std::is_convertible_v<const Value&, std::string_view>) {
    return printable(value);
  } else {
    return value;
  }
}

/// To stderr. That it cannot be written (a closed pipe) is no reason to fail.
template <typename... Values>
void say(fmt::format_string<decltype(shown(std::declval<Values>()))...> text, const Values&... values) {
  const std::string line = fmt::format(text, shown(values)...);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

struct Options {
  std::string kernel;
  std::string iso, entry, append;
  std::vector<std::string> initrds;
  std::string command_line = "console=ttyS0";
  std::string memory = "512M";
  std::string cpus = "1";
  std::string engine = "auto";
  std::string host_cpu = "all";
  std::string code_memory = "48M";
  std::string protocol = "auto";
  std::string console = "stdio";
  std::string serial2 = "none";
  std::string input = "raw";
  bool five_level_paging = false;
  bool debug_dump = false, stats = false, json = false, quiet = false;
};

std::unexpected<VmError> bad(const std::string& option, const std::string& value, std::string reason,
                             std::string hint) {
  return fail(VmError(ErrorCode::InvalidArgument, "use " + option, "'" + value + "'", std::move(reason))
                  .with_hint(std::move(hint)));
}

Result<unsigned> parse_cpus(const std::string& text) {
  unsigned value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || value == 0)
    return bad("--cpus", text, "not a number of CPUs", "give 1 or more");
  return value;
}

Result<RuntimeConfig> make_config(const Options& options) {
  RuntimeConfig config;
  config.boot.kernel = options.kernel;
  for (const std::string& path : options.initrds) {
    // For kernels that take modules: "PATH ARGUMENTS".
    const auto space = path.find(' ');
    config.boot.modules.push_back({path.substr(0, space), space == std::string::npos ? "" : path.substr(space + 1)});
  }
  config.boot.command_line = options.command_line;
  auto memory = parse_size(options.memory);
  if (!memory) return bad("--memory", options.memory, memory.error().reason(), "give a size such as 512M or 2G");
  config.memory_bytes = *memory;
  auto cpus = parse_cpus(options.cpus);
  if (!cpus) return fail(cpus.error());
  config.cpus = *cpus;
  config.five_level_paging = options.five_level_paging;
  if (options.engine == "auto") {
    config.engine = EngineChoice::Auto;
  } else if (options.engine == "soft") {
    config.engine = EngineChoice::Soft;
  } else {
    return bad("--engine", options.engine, "no such engine", "give auto or soft");
  }
  if (options.host_cpu == "no-bmi2") {
    config.host_cpu = HostCpuUse::NoBmi2;
  } else if (options.host_cpu == "baseline") {
    config.host_cpu = HostCpuUse::Baseline;
  } else if (options.host_cpu != "all") {
    return bad("--host-cpu", options.host_cpu, "no such part of a CPU", "give all, no-bmi2 or baseline");
  }
  const auto code_bytes = parse_size(options.code_memory);
  if (!code_bytes) return bad("--code-memory", options.code_memory, code_bytes.error().reason(), "give 1M to 48M");
  config.code_bytes = *code_bytes;
  bool known = false;
  for (const BootMethod method : {BootMethod::Auto, BootMethod::Linux, BootMethod::Pvh, BootMethod::Multiboot}) {
    if (options.protocol != to_string(method)) continue;
    config.boot.method = method;
    known = true;
  }
  if (!known) return bad("--boot", options.protocol, "no such boot protocol", "give auto, linux, pvh or multiboot");
  return config;
}

nlohmann::ordered_json to_json(const RuntimeStats& stats) {
  nlohmann::ordered_json document = {
      {"state", to_string(stats.state)},
      {"engine", stats.engine},
      {"running_ns", stats.running_ns},
      {"memory_bytes", stats.memory_bytes},
      {"resident_bytes", stats.resident_bytes},
      {"resets", stats.resets},
      {"console_out_bytes", stats.console_out_bytes},
      {"console_in_bytes", stats.console_in_bytes},
      {"translated_blocks", stats.translated_blocks},
      {"translated_instructions", stats.translated_instructions},
      {"invalidated_blocks", stats.invalidated_blocks},
      {"code_bytes", stats.code_bytes},
  };
  auto cpus = nlohmann::ordered_json::array();
  for (const RuntimeStats::Cpu& cpu : stats.cpus) {
    cpus.push_back({{"exits", cpu.exits},
                    {"port_accesses", cpu.port_accesses},
                    {"mmio_accesses", cpu.mmio_accesses},
                    {"interrupts", cpu.interrupts},
                    {"exceptions", cpu.exceptions},
                    {"halts", cpu.halts},
                    {"host_ns", cpu.host_ns}});
  }
  document["cpus"] = std::move(cpus);
  return document;
}

void print_stats(const RuntimeStats& stats) {
  const auto seconds = [](std::uint64_t ns) { return static_cast<double>(ns) / 1e9; };
  const auto mib = [](std::uint64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(kMiB); };
  say("\nengine {}, ran {:.3f} s, memory {:.0f} MiB ({:.1f} MiB resident), resets {}\n", stats.engine,
      seconds(stats.running_ns), mib(stats.memory_bytes), mib(stats.resident_bytes), stats.resets);
  say("translated {} blocks, {} instructions, {:.1f} MiB of code; {} blocks dropped\n", stats.translated_blocks,
      stats.translated_instructions, mib(stats.code_bytes), stats.invalidated_blocks);
  say("console {} bytes out, {} bytes in\n", stats.console_out_bytes, stats.console_in_bytes);
  say("{:>4} {:>10} {:>12} {:>12} {:>12} {:>12} {:>12} {:>10}\n", "CPU", "host s", "exits", "ports", "MMIO",
      "interrupts", "exceptions", "halts");
  for (std::size_t i = 0; i < stats.cpus.size(); ++i) {
    const RuntimeStats::Cpu& cpu = stats.cpus[i];
    say("{:>4} {:>10.3f} {:>12} {:>12} {:>12} {:>12} {:>12} {:>10}\n", i, seconds(cpu.host_ns), cpu.exits,
        cpu.port_accesses, cpu.mmio_accesses, cpu.interrupts, cpu.exceptions, cpu.halts);
  }
}

/// Says how the guest ended, where that is not what everybody expects, and gives the exit status for it.
int explain(const SessionOutcome& outcome, const Options& options) {
  if (!outcome.output) {
    complain(outcome.output.error().message());
    return kFailed;
  }
  if (outcome.signal != 0) return kSignalBase + outcome.signal;
  if (!outcome.end) {
    if (!options.quiet) say("\nvmp: left; the guest was stopped\n");
    return kDone;
  }
  switch (outcome.end->cause) {
    case RuntimeEvent::Kind::DebugExit: return static_cast<int>((outcome.end->value << 1 | 1) & 0xff);
    case RuntimeEvent::Kind::Panic: say("vmp: the guest panicked\n"); return kPanic;
    case RuntimeEvent::Kind::TripleFault:
      say("vmp: triple fault on CPU {}{}\n", outcome.end->cpu, options.debug_dump ? "" : "; --debug-dump shows where");
      if (options.debug_dump) std::fputs(outcome.end->text.c_str(), stderr);  // lines of our own
      return kTripleFault;
    case RuntimeEvent::Kind::ResetLoop:
      say("vmp: the guest reset itself {} times within 10 s\n", outcome.end->value);
      return kResetLoop;
    case RuntimeEvent::Kind::EngineFailed:
      say("vmp: CPU {}: {}\n", outcome.end->cpu, outcome.end->text);
      return kFailed;
    default: return kDone;
  }
}

/// Everything that can be wrong with the command line and the files is found out here, before anything runs; whatever
/// its kind, it is bad input to the user.
int refuse(const VmError& error) {
  report(error);
  return kUsage;
}

int run(const Options& options) {
  reserve_standard_descriptors();
  if (options.kernel.empty() && options.iso.empty())
    return refuse(bad("--kernel", "", "nothing to boot", "give --kernel FILE, or --iso IMAGE").error());
  auto config = make_config(options);
  if (!config) return refuse(config.error());
  const auto console_target = parse_console_target("--console", options.console);
  if (!console_target) return refuse(console_target.error());
  const auto channel_target = parse_console_target("--serial2", options.serial2);
  if (!channel_target) return refuse(channel_target.error());
  const auto clash = [&](ConsoleTarget::Kind kind) {
    return console_target->kind == kind && channel_target->kind == kind;
  };
  if (clash(ConsoleTarget::Kind::Stdio))
    return refuse(bad("--serial2", "stdio", "the console is there already", "give --console another place").error());
  if (console_target->kind == ConsoleTarget::Kind::WindowSize)
    return refuse(bad("--console", "winsize", "it needs the second port", "give --serial2 winsize").error());
  const bool uses_stdout =
      console_target->kind == ConsoleTarget::Kind::Stdio || channel_target->kind == ConsoleTarget::Kind::Stdio;
  if (options.json && uses_stdout) {
    return refuse(
        bad("--json", "stdout", "the console is there", "give --console file:PATH, or --stats alone").error());
  }
  if (options.input != "raw" && options.input != "canonical")
    return refuse(bad("--input", options.input, "no such way to send input", "give raw or canonical").error());

  std::optional<IsoBoot> iso;
  if (!options.iso.empty()) {
    auto opened = open_iso_boot(options.iso, options.entry, options.append);
    if (!opened) return refuse(opened.error());
    iso = std::move(*opened);
    config->boot = iso->boot;
    if (!options.quiet) {
      say("vmp: booting \"{}\" of {}\n", iso->title, options.iso);
      if (iso->console_added) say("vmp: console=ttyS0 added to its command line\n");
    }
  }

  block_session_signals();  // before the threads of the guest begin
  catch_fatal_signals();
  auto runtime = Runtime::create(std::move(*config));
  if (!runtime) return refuse(iso ? name_files(*iso, runtime.error()) : runtime.error());
  auto console = Endpoint::open(*console_target);
  if (!console) return refuse(console.error());
  auto channel = Endpoint::open(*channel_target);
  if (!channel) return refuse(channel.error());
  for (const Endpoint* endpoint : {&*console, &*channel}) {
    if (endpoint->kind() == ConsoleTarget::Kind::Pty) say("vmp: serial port on {}\n", endpoint->name());
  }

  const std::shared_ptr<Runtime> guest = std::move(*runtime);
  SimpleRuntimeController controller(guest);
  const auto outcome = run_session(
      *guest, controller, *console, *channel,
      {.input = options.input == "raw" ? InputMode::Raw : InputMode::Canonical, .announce = !options.quiet});
  if (!outcome) return report(outcome.error());
  const int status = explain(*outcome, options);
  if (options.json) {
    // Not fmt::print, which throws where it cannot write: the guest's status would be lost with the output.
    const std::string text = to_json(controller.stats()).dump(2) + "\n";
    std::fwrite(text.data(), 1, text.size(), stdout);
  } else if (options.stats) {
    print_stats(controller.stats());
  }
  return status;
}

constexpr const char* kHelp = R"(Boot a guest and connect its serial console to this terminal.

Examples:
  vmp run --kernel /boot/vmlinuz-6.1.0-amd64 --initrd initrd.img
  vmp run --kernel vmlinuz --initrd base.img --initrd more.img --cmdline "console=ttyS0 quiet" --memory 2G --cpus 2
  vmp run --kernel vmlinuz --initrd initrd.img --console file:boot.log --stats
  vmp run --iso image.iso --entry 2 --append "quiet"
  tools/make-guest              makes a kernel and an initrd from Debian's packages, in .cache/guest

The keyboard belongs to the guest, Ctrl-C too. Ctrl-] leaves and stops it.)";

constexpr const char* kFooter = R"(Exit status:
  0    the guest powered off, or you left with Ctrl-]
  1    the console's output could not be written, or the engine failed
  2    something on the command line or in a file is wrong; nothing was started
  120  the guest panicked (pvpanic)       122  triple fault       124  3 resets within 10 s
  else, after a write of v to port 0xf4: (v << 1) | 1; after a signal: 128 + its number)";

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("run", kHelp);
  command->footer(kFooter);
  command
      ->add_option("--kernel,-k", options->kernel,
                   "Kernel: a Linux bzImage, an ELF with the PVH note, a Multiboot kernel")
      ->type_name("FILE");
  auto* iso =
      command->add_option("--iso", options->iso, "Instead of --kernel: boot what this disc image's boot menu says")
          ->type_name("FILE")
          ->excludes("--kernel");
  command
      ->add_option("--entry", options->entry,
                   "With --iso: the entry, as `vmp iso boot` lists them (id, title or number)")
      ->type_name("NAME")
      ->needs(iso);
  command->add_option("--append", options->append, "With --iso: text to add to the entry's command line")
      ->type_name("TEXT")
      ->needs(iso);
  command
      ->add_option("--initrd,-i", options->initrds,
                   "Initramfs. May be given again: Linux unpacks one over the other; other kernels get modules, "
                   "with arguments after a space")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command->add_option("--cmdline,-c", options->command_line, "Kernel command line")
      ->type_name("TEXT")
      ->capture_default_str();
  command->add_option("--memory,-m", options->memory, "Memory of the guest, such as 512M or 2G")
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_option("--cpus", options->cpus, "Number of CPUs, 1 to 512, each a thread of its own")
      ->type_name("N")
      ->capture_default_str();
  command->add_option("--engine", options->engine, "What runs the CPUs: auto (the best usable one) or soft")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option(
          "--host-cpu", options->host_cpu,
          "What the software engine uses of this host's CPU: all, no-bmi2 (as on CPUs before 2013), baseline (no "
          "XSAVE and so no AVX either); the guest is given as much")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--code-memory", options->code_memory,
                   "Most memory that the software engine keeps translated code in, 1M to 48M")
      ->type_name("SIZE")
      ->capture_default_str();
  command->add_option("--boot", options->protocol, "Boot protocol: auto (what the file is), linux, pvh or multiboot")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--console", options->console,
                   "First serial port: stdio, none, pty (its name is printed), file:PATH, fd:NUMBER")
      ->type_name("WHERE")
      ->capture_default_str();
  command
      ->add_option("--serial2", options->serial2,
                   "Second serial port: as --console, or winsize, which answers each line from the guest with "
                   "\"ROWS COLUMNS\", again whenever the terminal changes")
      ->type_name("WHERE")
      ->capture_default_str();
  command
      ->add_option("--input", options->input,
                   "raw: keys one by one, bytes as they are; canonical: as from a pipe, special characters quoted with "
                   "Ctrl-V, the end sent as Ctrl-D, once the guest has sent \"vmp-input\" on the second port (at once "
                   "with --serial2 none, at its first request with winsize)")
      ->type_name("MODE")
      ->capture_default_str();
  command->add_flag("--la57", options->five_level_paging, "Give the CPUs 5-level paging (57-bit addresses)");
  command->add_flag("--debug-dump", options->debug_dump,
                    "On a triple fault: registers, page tables and instructions at that point, on stderr");
  command->add_flag("--stats", options->stats, "At the end: what the guest's CPUs did, on stderr");
  command->add_flag("--json", options->json, "At the end: the statistics as one JSON document on stdout");
  command->add_flag("--quiet,-q", options->quiet, "No messages but errors");
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp
