"""What a notebook stands on: data, claims, measurements, figures and exercises."""
