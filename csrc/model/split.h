// A model that is split between a device and its host: the first layers lie on the host, the others
// on the device, with the head and the drafter.
#pragma once

namespace gemtp {

/// What lies on the host. Of a model on one device, the CPU or a GPU, nothing does.
struct Placement {
  int host_layers = 0;   // the first layers, with their K/V
  int host_experts = 0;  // the experts of the first layers, of at least as many

  bool split() const { return host_experts > 0 || host_layers > 0; }
  /// Whether layers on the device have experts on the host.
  bool splits_layers() const { return host_experts > host_layers; }
  bool operator==(const Placement&) const = default;
};

/// A device's storage or backend, the host's, and what lies where.
template <class T>
struct Split {
  /// Everything on one.
  Split(T& only) : device(only), host(only) {}
  Split(T& on_device, T& on_host, Placement at) : device(on_device), host(on_host), placement(at) {}
  /// Of backends, as storages.
  template <class U>
  Split(const Split<U>& other)
      : device(other.device), host(other.host), placement(other.placement) {}

  T& of_layer(int i) const { return i < placement.host_layers ? host : device; }
  T& of_experts(int i) const { return i < placement.host_experts ? host : device; }

  T& device;
  T& host;
  Placement placement;
};

}  // namespace gemtp
