// Standard output that cannot be written: said once, and a failure of the command.
#pragma once

namespace vm_platform::vmp {

/// Opens the standard descriptors that the caller closed, so that no file that is opened later stands in their place.
/// Input ends at once; output stays what cannot be written (EBADF), errors go nowhere.
void hold_closed_descriptors();

/// Complains that standard output could not be written, unless its reader has gone (EPIPE), and returns `kFailed`.
int lost_output(int os_error);

/// Writes out what stdio holds. Returns `status`, or `kFailed` for a success whose output was lost.
int finish_output(int status);

}  // namespace vm_platform::vmp
