# What the translator does not copy, for engine/CMakeLists.txt.
set(VMP_SOFT_SEMANTICS
    control.cpp cpuid.cpp delivery.cpp descriptor_table.cpp descriptors.cpp dispatch.cpp far_transfer.cpp
    fast_system_call.cpp flags.cpp fpu_state.cpp interrupt.cpp kvm_clock.cpp msr.cpp operands.cpp port.cpp processor.cpp
    reset.cpp segment.cpp string.cpp task.cpp)
list(TRANSFORM VMP_SOFT_SEMANTICS PREPEND soft/semantics/)
set(VMP_SOFT_SEMANTICS_TESTS flat_machine.cpp interrupt_test.cpp)
list(TRANSFORM VMP_SOFT_SEMANTICS_TESTS PREPEND soft/semantics/)
