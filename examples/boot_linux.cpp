// Boots a Linux guest with the library: its console on this program's stdout, its end as this program's exit status.
//
//   boot_linux KERNEL [INITRD]
#include <cstdio>
#include <memory>
#include <vm_platform/runtime.hpp>

using namespace vm_platform;

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: boot_linux KERNEL [INITRD]\n");
    return 2;
  }
  RuntimeConfig config;
  config.boot.kernel = argv[1];
  if (argc > 2) config.boot.modules.push_back({argv[2]});
  config.boot.command_line = "console=ttyS0";
  config.memory_bytes = 512 * kMiB;
  config.cpus = 1;

  // Everything is checked and loaded here; nothing runs yet.
  auto created = Runtime::create(config);
  if (!created) {
    std::fprintf(stderr, "%s\n", created.error().message().c_str());
    return 2;
  }
  const std::shared_ptr<Runtime> guest = std::move(*created);
  guest->serial(0).set_output([](std::span<const std::byte> bytes) {
    std::fwrite(bytes.data(), 1, bytes.size(), stdout);
    std::fflush(stdout);
  });

  // The controller does what a PC would: resets when the guest asks, stops when it powers off.
  SimpleRuntimeController controller(guest);
  controller.subscribe([](const RuntimeEvent& event) {
    const auto kind = to_string(event.kind), state = to_string(event.state);
    std::fprintf(stderr, "event: %.*s (%.*s)\n", static_cast<int>(kind.size()), kind.data(),
                 static_cast<int>(state.size()), state.data());
  });
  if (auto started = controller.execute(RuntimeCommand::Start); !started) return 1;
  const auto end = controller.wait();

  const RuntimeStats stats = controller.stats();
  std::fprintf(stderr, "ran %.3f s on the engine '%s'\n", static_cast<double>(stats.running_ns) / 1e9,
               stats.engine.c_str());
  return end.cause == RuntimeEvent::Kind::PowerOff ? 0 : 1;
}
