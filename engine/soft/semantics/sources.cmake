# What the translator does not copy, for engine/CMakeLists.txt.
set(VMP_SOFT_SEMANTICS
    breakpoints.cpp control.cpp cpuid.cpp delivery.cpp descriptor_table.cpp descriptors.cpp dispatch.cpp far_transfer.cpp
    fast_system_call.cpp flags.cpp fpu_state.cpp host_cpu.cpp interrupt.cpp kvm_clock.cpp msr.cpp operands.cpp port.cpp processor.cpp
    legacy.cpp reset.cpp segment.cpp string.cpp task.cpp vector_memory.cpp)
list(TRANSFORM VMP_SOFT_SEMANTICS PREPEND soft/semantics/)
set(VMP_SOFT_SEMANTICS_TESTS flat_machine.cpp interrupt_test.cpp segment_test.cpp fast_system_call_test.cpp flags_test.cpp
    control_test.cpp msr_test.cpp cpuid_test.cpp descriptor_table_test.cpp string_test.cpp
    fpu_state_test.cpp vector_memory_test.cpp far_transfer_test.cpp legacy_test.cpp processor_test.cpp)
list(TRANSFORM VMP_SOFT_SEMANTICS_TESTS PREPEND soft/semantics/)
