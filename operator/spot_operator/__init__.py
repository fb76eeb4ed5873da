"""The operator: it observes one SpotTrainingJob, decides, persists the intent and acts."""
