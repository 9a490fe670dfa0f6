// All of PCI: functions of the host, IOMMU groups, and VFIO devices.
#pragma once

#include <vm_platform/device_identity.hpp>
#include <vm_platform/iommu.hpp>
#include <vm_platform/pci_device.hpp>
#include <vm_platform/vfio.hpp>
