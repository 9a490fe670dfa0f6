#include <fmt/core.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vm_platform/iso_extract.hpp>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

struct Options : ImageOptions {
  std::string target = ".";
  std::vector<std::string> patterns;
  std::string from = "/";
  unsigned jobs = 0;
  bool resume = false, overwrite = false, owners = false, special = false;
};

IsoExtractProgress progress;

void stop(int) { progress.stop = true; }

/// Shows how far it is, on a terminal, from the first second on.
class Meter {
 public:
  explicit Meter(bool shown) {
    if (shown) thread_ = std::thread([this] { show(); });
  }
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;
  ~Meter() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void show() {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock lock(mutex_);
    bool any = false;
    while (!wake_.wait_for(lock, std::chrono::milliseconds(500), [this] { return done_; })) {
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const auto bytes = static_cast<double>(progress.bytes.load());
      fmt::print(stderr, "\r\x1b[K{} files, {:.1f} MiB, {:.1f} MiB/s", progress.files.load(), bytes / (1 << 20),
                 bytes / (1 << 20) / seconds);
      std::fflush(stderr);
      any = true;
    }
    if (any) fmt::print(stderr, "\r\x1b[K");
  }
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

/// The directories above the target; it is made itself by the extraction.
Result<void> make_parents(const std::string& target) {
  const std::filesystem::path parent = std::filesystem::path(target).parent_path();
  if (parent.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) return fail(VmError::from_os(error.value(), "make directory", "'" + parent.string() + "'"));
  return {};
}

int run(const Options& options) {
  if (options.resume && options.overwrite) {
    return report(VmError(ErrorCode::InvalidArgument, "vmp iso extract", "--resume --overwrite", "exclude each other"));
  }
  auto image = open_image(options);
  if (!image) return report(image.error());
  if (auto made = make_parents(options.target); !made) return report(made.error());
  IsoExtractOptions extract;
  extract.from = options.from;
  extract.patterns = options.patterns;
  extract.threads = options.jobs;
  extract.existing = options.resume      ? IsoExisting::Resume
                     : options.overwrite ? IsoExisting::Overwrite
                                         : IsoExisting::Refuse;
  extract.owners = options.owners;
  extract.special_files = options.special;
  extract.progress = &progress;
  std::signal(SIGINT, stop);
  std::signal(SIGTERM, stop);
#ifdef SIGHUP
  if (std::signal(SIGHUP, stop) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // as nohup has it
#endif
  const auto start = std::chrono::steady_clock::now();
  Output out;
  auto result = [&] {
    const Meter meter(out.on_terminal() && !options.json);
    return iso_extract(*image, options.target, extract);
  }();
  if (!result) return report(result.error());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const VmError& error : result->errors) (void)report(error);
  if (result->failures > result->errors.size())
    fmt::print(stderr, "vmp: and {} more\n", result->failures - result->errors.size());
  for (const std::string& pattern : result->unmatched) complain("nothing matches '" + pattern + "'");
  if (options.json) {
    out.put("{\"image\":");
    out.json(options.image);
    out.put(",\"target\":");
    out.json(options.target);
    out.put(
        fmt::format(",\"directories\":{},\"files\":{},\"symlinks\":{},\"bytes\":{},\"kept\":{},\"skipped\":{},"
                    "\"without_owner\":{},\"failures\":{},\"stopped\":{},\"seconds\":{:.3f}}}\n",
                    result->directories, result->files, result->symlinks, result->bytes, result->kept, result->skipped,
                    result->without_owner, result->failures, result->stopped, seconds));
  } else {
    out.put(fmt::format("{} files, {} directories, {} symlinks, {:.1f} MiB in {:.2f} s", result->files,
                        result->directories, result->symlinks, static_cast<double>(result->bytes) / (1 << 20),
                        seconds));
    if (result->kept != 0) out.put(fmt::format("; {} were there already", result->kept));
    if (result->skipped != 0) out.put(fmt::format("; {} special files left out (--special)", result->skipped));
    if (result->without_owner != 0)
      out.put(
          fmt::format("; {} without their owner and set-id bits (--owners needs privileges)", result->without_owner));
    if (result->failures != 0) out.put(fmt::format("; {} failed", result->failures));
    out.put(result->stopped ? "; stopped: --resume goes on\n" : "\n");
  }
  const bool whole =
      result->failures == 0 && result->unmatched.empty() && result->without_owner == 0 && !result->stopped;
  return out.finish(whole ? kDone : kFailed);
}

}  // namespace

void add_extract(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("extract", "Extract files, never outside the target directory");
  auto options = std::make_shared<Options>();
  add_image_options(*command, *options);
  command
      ->add_option("pattern", options->patterns,
                   "Shell patterns on paths (*, **, ?, [a-z]); a directory is taken whole")
      ->type_name("PATTERN");
  command
      ->add_option("-C,--to", options->target,
                   "Target directory; made, with those above it, if it is not there (default .)")
      ->type_name("DIR");
  command->add_option("--from", options->from, "Extract the content of this directory of the image")->type_name("PATH");
  command->add_option("-j,--jobs", options->jobs, "Threads (default one for each CPU)")
      ->check(whole_number(0, 1024))
      ->type_name("N");
  command->add_flag("--resume", options->resume, "Go on with an extraction: keep what has the image's size and time");
  command->add_flag("--overwrite", options->overwrite, "Replace what is there already");
  command->add_flag("--owners", options->owners, "Restore owners and set-id bits (needs privileges)");
  command->add_flag("--special", options->special, "Also device nodes and named pipes (needs privileges)");
  command->footer(
      "Symbolic links are restored but never followed. Interrupted, it leaves no half-written file.\nExamples:\n"
      "  vmp iso extract debian.iso -C target\n  vmp iso extract debian.iso 'install.amd/**' -C target\n"
      "  vmp iso extract debian.iso --resume -C target");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
