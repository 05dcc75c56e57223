#include "runtime/training/loss_scale.h"

#include <cmath>

namespace annulus {

void LossScaler::update(double gradient_norm) {
  constexpr double kLargest = 0x1p24;  // weights times this are far from f32's end
  if (!std::isfinite(gradient_norm)) {
    scale_ /= 2;
    good_ = 0;
    ++skipped_;
  } else if (++good_ == interval_) {
    if (scale_ < kLargest) scale_ *= 2;
    good_ = 0;
  }
}

}  // namespace annulus
