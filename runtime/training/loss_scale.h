#pragma once

#include <cstdint>

namespace annulus {

/// The loss is a sum over tokens, not their mean, so that gradients in f16 want less of a scale than usual.
inline constexpr double kInitialLossScale = 1024;

/// What the loss is scaled by in f16, so that small gradients do not vanish and large ones stay finite (Micikevicius et
/// al., arXiv 1710.03740, section 3.2). A step whose gradients are not finite has left the weights as they were: the
/// scale is halved; after `interval` steps without such a one it is doubled. All ranks, being given the same norms,
/// have the same scale.
class LossScaler {
 public:
  LossScaler(double scale, std::int64_t interval) : scale_(scale), interval_(interval) {}
  double scale() const { return scale_; }
  std::int64_t skipped() const { return skipped_; }

  /// Says what the gradient norm of the last step was.
  void update(double gradient_norm);

 private:
  double scale_;
  std::int64_t interval_;
  std::int64_t good_ = 0;  // steps since the scale was changed
  std::int64_t skipped_ = 0;
};

}  // namespace annulus
